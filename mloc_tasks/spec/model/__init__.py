"""The typed models of the language, one file for each topic."""
