"""`python -m harness.data`: fetch a data set, check one."""

import sys

from harness.data_command import app

if __name__ == "__main__":
    sys.exit(app())
