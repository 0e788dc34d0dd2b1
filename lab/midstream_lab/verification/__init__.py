"""Does a split network give the whole network's answer, cut by cut?"""
