"""What commands are made of: where errors become sentences, options, tables, and the shape of a command."""
