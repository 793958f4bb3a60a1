"""`python -m relational_rnn` is the command `relational-rnn`."""

import sys

from relational_rnn.cli import main

sys.exit(main())
