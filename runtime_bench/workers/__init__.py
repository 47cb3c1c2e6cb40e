"""Processes that hold one model each and run it when told: here, over ssh, or through adb."""
