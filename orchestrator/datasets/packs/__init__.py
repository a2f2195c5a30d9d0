"""Packs: made, sent, made anew, unpacked, and deleted when nobody names them."""
