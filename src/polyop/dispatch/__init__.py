"""The dispatcher: keys, tables, context, operators and their registration."""
