"""The live wire at scale, over restarts, under attack, and with clients that nobody here wrote."""
