"""The live page: what it answers (`answers`, without Gradio) and how it looks (`page`)."""
