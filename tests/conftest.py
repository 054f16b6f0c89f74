import signal

# CI may start the tests in the background, where shells have Ctrl-C ignored, and programs that the tests start inherit
# that: set it right, since some tests interrupt them
signal.signal(signal.SIGINT, signal.default_int_handler)
