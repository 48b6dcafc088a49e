"""Floor 3: signed statements about artifacts: in-toto Statement in a DSSE envelope."""
