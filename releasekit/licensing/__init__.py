"""The licences of a release: what is said of them, the papers that follow, and their check.

terms      what a maintainer says
papers     the files that lie in a release for its licences
drawing    from the one to the other, with the texts that are to be had
clearance  whether a release, or a model, keeps to them
"""
