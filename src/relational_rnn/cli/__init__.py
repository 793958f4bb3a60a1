"""The command `relational-rnn`: parse, call, print."""
