"""The paper's protocol: the best configurations by validation, retrained with several seeds, each tested once."""
