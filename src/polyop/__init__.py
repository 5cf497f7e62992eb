"""polyop: tensor operators, written once."""
