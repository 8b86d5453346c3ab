"""How good reconstructions are, at which rate, and compared with other codecs."""
