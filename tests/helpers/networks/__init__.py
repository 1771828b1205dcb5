"""Networks that several tests share, small enough to be fast."""
