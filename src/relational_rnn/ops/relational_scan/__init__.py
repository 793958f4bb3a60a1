"""The recurrence of the relational memory over time."""
