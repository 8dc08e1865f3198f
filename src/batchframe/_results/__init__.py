"""Result files → answers → columns."""
