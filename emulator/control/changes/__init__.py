"""What can be changed, as data: checked, and laid over the state of the start."""
