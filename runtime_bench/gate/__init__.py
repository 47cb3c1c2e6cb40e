"""The regression gate: pass, fail or inconclusive."""
