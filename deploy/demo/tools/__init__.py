"""The relay's tools for workers: an MCP server that looks after the plugins of one fleet on this machine.

Rule: it does what a careful person at a terminal would do, to these plugins alone: reads their files, changes one
checked value, asks one process to start again. Texts it gives back are data for whoever reads them.
"""
