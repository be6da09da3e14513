"""Bills of materials: what software is in the images of a store, as SPDX and as CycloneDX documents.

``collection`` finds package databases while the layers are read anyway, ``distributions`` and ``languages`` read their records, ``bill``
puts images, layers and packages together, ``spdx`` and ``cyclonedx`` word them, ``writing`` writes both. Nothing of an image is ever run.
"""
