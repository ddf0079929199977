"""Tests of the parts of the benchmark that decide something, without any peer."""
