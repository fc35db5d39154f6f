"""Is entropy a good guess of where the choice of a token matters?"""
