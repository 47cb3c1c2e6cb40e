"""What an export begins with: a found.pt, a QDQ model made elsewhere, or a float one that is calibrated."""
