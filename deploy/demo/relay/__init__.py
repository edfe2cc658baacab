"""The package `relay`: receives webhooks over HTTP, signs them with its merchant's secret and forwards them to a sink.

Rule: a release is one folder `v<version>` beside `common`, packed as a program of its own (`relay.release`). What a
release does wrong it does by its own code; there is no switch that makes it fail.
"""
