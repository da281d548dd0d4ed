"""The generator family, its frames and times, and Gram operators (backends)."""
