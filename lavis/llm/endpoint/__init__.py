"""An OpenAI-compatible server: requests, and what its answers and errors mean."""
