"""The examples in the documentation of the library's own modules, run by unittest."""

import doctest
import importlib
import io
import sys
import unittest

failures = 0
for name in sys.argv[1:]:
    suite = unittest.TestSuite([doctest.DocTestSuite(importlib.import_module(name))])
    result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
    print(f"{name}: {result.testsRun} tests, {len(result.failures)} failures, {len(result.errors)} errors")
    for test, trace in result.failures + result.errors:
        print(trace)
    failures += not result.wasSuccessful()
sys.exit(failures)
