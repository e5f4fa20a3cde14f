"""What a machine has of what kdjax needs, and what to do where something is missing.

A file each: software, devices, the machine, the Hub, a recipe. Nothing is changed, and nothing
waits for long: what could is asked in a process or a thread of its own, with a time limit.
"""
