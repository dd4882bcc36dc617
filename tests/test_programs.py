"""The table of programs on its page is the one that the source gives, and no program needs much glue."""

import ast

import programs


def test_the_page_has_the_table_of_the_source():
    page = programs.PAGE.read_text()
    assert programs.written(page, programs.table()) == page, "write it anew: python tests/programs.py"


def test_there_are_twenty_and_their_glue_is_two_lines_at_most():
    found = list(programs.programs())
    assert {row[0] for row in found} == set(range(1, 21))
    assert all(glue <= 2 for *_, glue, _ in found)


def test_lines_are_counted_without_what_only_speaks():
    source = '''def one():
    """Say what it is."""
    # and why

    a = """two
    lines"""
    return a  # glue: of a kind
'''
    assert programs.lines_of(ast.parse(source).body, source) == (4, 1)
