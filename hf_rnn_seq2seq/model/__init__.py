"""The models: every file of this room travels to the Hub with the weights, and nothing else does."""
