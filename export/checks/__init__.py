"""Do the written files compute what the network computes?"""
