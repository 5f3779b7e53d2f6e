"""How a trial runs: data, frozen backbone, reprogrammer, mapper, training, study."""
