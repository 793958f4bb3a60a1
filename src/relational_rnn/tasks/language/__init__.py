"""Language: text, its tokens and vocabularies, and models that read it with a relational memory or a rival."""
