"""The 128 General MIDI programs and percussion: names, registers and usual roles.

Programs count from 0 (0 is Acoustic Grand Piano); pitches are MIDI note numbers (60 is middle C). The
tag vocabulary of the built-in backbone's pre-training is `TAGS`: the programs in order, then percussion.

Source: the General MIDI level 1 sound set; registers from common orchestration practice, rounded.
"""

from dataclasses import dataclass

PERCUSSION = 128
"""Takes the place of a program number for the percussion channel (MIDI channel 10)."""


@dataclass(frozen=True)
class Program:
    """One General MIDI program: `low` to `high` (both included) is the register it is composed for."""

    number: int
    name: str
    low: int
    high: int
    roles: tuple[str, ...]


# Each family: its roles, then a "name low high" for each program, which may override the roles after a colon.
_FAMILIES: tuple[tuple[str, str], ...] = (
    (
        "chords arpeggio melody",
        "Acoustic Grand Piano 36 88|Bright Acoustic Piano 40 90|Electric Grand Piano 38 86"
        "|Honky-tonk Piano 43 86|Electric Piano 1 40 84|Electric Piano 2 40 84|Harpsichord 41 84"
        "|Clavinet 36 79:arpeggio chords",
    ),
    (
        "melody arpeggio",
        "Celesta 60 96|Glockenspiel 72 103|Music Box 60 96|Vibraphone 53 86|Marimba 48 88|Xylophone 65 100"
        "|Tubular Bells 60 77|Dulcimer 55 84",
    ),
    (
        "chords pad melody",
        "Drawbar Organ 41 86|Percussive Organ 41 86|Rock Organ 41 86|Church Organ 36 84|Reed Organ 45 84"
        "|Accordion 53 89|Harmonica 60 88:melody|Tango Accordion 53 86",
    ),
    (
        "strum arpeggio melody",
        "Acoustic Guitar (nylon) 40 76|Acoustic Guitar (steel) 40 78|Electric Guitar (jazz) 40 80"
        "|Electric Guitar (clean) 40 82|Electric Guitar (muted) 40 76:arpeggio melody|Overdriven Guitar 40 82"
        "|Distortion Guitar 40 82|Guitar Harmonics 52 88:arpeggio melody",
    ),
    (
        "bass",
        "Acoustic Bass 28 55|Electric Bass (finger) 28 55|Electric Bass (pick) 28 55|Fretless Bass 28 58"
        "|Slap Bass 1 28 55|Slap Bass 2 28 55|Synth Bass 1 26 53|Synth Bass 2 26 53",
    ),
    (
        "melody pad",
        "Violin 55 96|Viola 48 84|Cello 36 72|Contrabass 28 58:bass melody|Tremolo Strings 43 86:pad"
        "|Pizzicato Strings 40 88:arpeggio melody|Orchestral Harp 36 96:arpeggio|Timpani 38 57:bass",
    ),
    (
        "pad chords melody",
        "String Ensemble 1 40 90|String Ensemble 2 40 90|Synth Strings 1 40 90|Synth Strings 2 40 90"
        "|Choir Aahs 48 79|Voice Oohs 48 79|Synth Voice 48 79|Orchestra Hit 48 72:hits",
    ),
    (
        "melody",
        "Trumpet 55 84|Trombone 40 72|Tuba 28 55:bass melody|Muted Trumpet 55 82|French Horn 41 77"
        "|Brass Section 43 82:chords melody|Synth Brass 1 41 84:chords melody"
        "|Synth Brass 2 41 84:chords melody",
    ),
    (
        "melody",
        "Soprano Sax 56 87|Alto Sax 49 80|Tenor Sax 44 75|Baritone Sax 36 68|Oboe 58 89|English Horn 52 81"
        "|Bassoon 34 72|Clarinet 50 89",
    ),
    (
        "melody",
        "Piccolo 74 102|Flute 60 94|Recorder 60 90|Pan Flute 60 89|Blown Bottle 55 84|Shakuhachi 55 84"
        "|Whistle 67 96|Ocarina 60 86",
    ),
    (
        "melody arpeggio chords",
        "Lead 1 (square) 48 88|Lead 2 (sawtooth) 48 88|Lead 3 (calliope) 48 88|Lead 4 (chiff) 48 88"
        "|Lead 5 (charang) 48 84|Lead 6 (voice) 48 84|Lead 7 (fifths) 45 80|Lead 8 (bass + lead) 36 76",
    ),
    (
        "pad chords",
        "Pad 1 (new age) 43 84|Pad 2 (warm) 43 84|Pad 3 (polysynth) 43 84|Pad 4 (choir) 43 84"
        "|Pad 5 (bowed) 43 84|Pad 6 (metallic) 43 84|Pad 7 (halo) 43 84|Pad 8 (sweep) 43 84",
    ),
    (
        "pad arpeggio",
        "FX 1 (rain) 43 84|FX 2 (soundtrack) 43 84|FX 3 (crystal) 48 90|FX 4 (atmosphere) 43 84"
        "|FX 5 (brightness) 43 84|FX 6 (goblins) 43 79|FX 7 (echoes) 43 84|FX 8 (sci-fi) 43 84",
    ),
    (
        "arpeggio melody",
        "Sitar 48 77|Banjo 48 86:roll melody|Shamisen 50 79|Koto 50 86|Kalimba 55 86|Bag pipe 53 77:melody"
        "|Fiddle 55 93:melody|Shanai 53 81:melody",
    ),
    (
        "hits arpeggio",
        "Tinkle Bell 72 98|Agogo 60 84|Steel Drums 52 84:melody arpeggio|Woodblock 60 84"
        "|Taiko Drum 36 60:hits|Melodic Tom 40 72|Synth Drum 40 72|Reverse Cymbal 48 72:hits",
    ),
    (
        "hits",
        "Guitar Fret Noise 48 80|Breath Noise 48 80|Seashore 48 72|Bird Tweet 55 80|Telephone Ring 55 79"
        "|Helicopter 48 72|Applause 48 72|Gunshot 48 76",
    ),
)


def _read(number: int, family_roles: str, entry: str) -> Program:
    description, _, own_roles = entry.partition(":")
    name, low, high = description.rsplit(" ", 2)
    return Program(number, name, int(low), int(high), tuple((own_roles or family_roles).split()))


PROGRAMS: tuple[Program, ...] = tuple(
    _read(8 * family + position, roles, entry)
    for family, (roles, entries) in enumerate(_FAMILIES)
    for position, entry in enumerate(entries.split("|"))
)


TAGS: tuple[str, ...] = (*(program.name for program in PROGRAMS), "Percussion")
