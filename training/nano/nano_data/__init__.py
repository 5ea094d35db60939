"""Data of the embedded model: questions with a reasoning whose length follows the effort, in the harmony format."""
