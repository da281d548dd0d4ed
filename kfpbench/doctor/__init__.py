"""`kfpbench doctor`: what this machine and this installation have, what they lack, and what to do about it."""
