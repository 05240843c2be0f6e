"""The mock data release: a sky of known truth, written in the exact layout and units of Legacy Surveys DR10.

It exists so that every step of the pipeline can be run, tested and *closed* (compared with truth) without the real
survey. It shares no source model and no renderer with the injection engine: a closed circle proves nothing. Pipeline
steps never import from here, apart from the command that writes a release; the truth folder is for closure tests and
the truth audit.
"""
