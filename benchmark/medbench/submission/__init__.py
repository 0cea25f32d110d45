"""Submissions: runs as a bundle that anybody can verify without trusting or running their code."""
