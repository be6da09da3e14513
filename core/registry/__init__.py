"""A client of registries: OCI distribution specification, Docker's token authentication, containers' configuration files.

``settings`` (values, :func:`from_options`), ``authfile`` (which user), ``certificates`` (TLS), ``registriesconf`` and
``endpoints`` (mirrors), ``proxies``, ``connections`` and ``exchange`` (HTTP), ``authorization`` (tokens), ``client`` and
``download`` (manifests, blobs). Nothing here knows sources: what an image is made of is
:mod:`shiplap.core.sources.registry`, which is what locks and builds use::

    from shiplap.core.sources.registry import Resolved, fetch_blobs, fetch_layers, resolve

    resolve(spec, *, platform, limits, access) -> Resolved      # index → platform manifest → config; all kept in access.cache
    fetch_layers(resolved, access) -> None                      # its layers into the cache, four at a time, with progress
    fetch_blobs(spec, wanted, access) -> None                   # any blobs of that repository: wanted = [(digest, size_bytes, label)]

    Resolved: reference, platform, indexes (outermost first, () without), manifest, config_digest, config, layers
    Document (indexes, manifest): digest, media_type, raw
    ResolvedLayer (layers, base first): diff_id, digest, size_bytes, media_type

and below it, for whoever needs a manifest or a blob by itself::

    from shiplap.core.registry.client import open_registry

    with open_registry(reference, access) as client:            # a Reference; access: shiplap.core.sources.Access
        client.manifest("7.2" or "sha256:…", limit_bytes=…) -> Received(raw, media_type, digest)    # digest computed, never believed
        client.blob(digest, size_bytes) -> None                 # into access.cache, verified; resumed when it broke
"""
