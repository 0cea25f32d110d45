"""A plugin that tries to end the program when imported."""

import sys

sys.exit("goodbye")
