"""Model cards, export, the runtime without torch, results files."""
