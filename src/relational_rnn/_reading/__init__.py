"""Files that somebody else may have made, or damaged: one reader for each kind, and the only place that opens them.

Whatever is wrong with a file is one `InputError` that names it; nothing in it is run; what it may unpack is bounded.

    guard       whatever a library raises over damaged bytes, as one sentence
    plain       bytes and text of a regular file, bounded
    json_text   JSON
    structure   which names JSON must have, and which types
    tables      CSV
    archives    zip, and tar with its compressions, member by member
    arrays      .npz
    tensors     safetensors, and what `torch.save` wrote; modules that are no larger than these
"""
