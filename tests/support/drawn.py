"""Configurations of the search spaces, as a study would draw them."""

from harness.config.space import configuration_of
from search_spaces import load


def paper_configs(name, preset=None):
    """Return the configurations of the paper that a space begins with."""
    space = load(name, preset)
    return [configuration_of(space, paper) for paper in space.paper]
