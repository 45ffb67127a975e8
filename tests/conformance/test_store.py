from kernelwright.store import Archive
from kernelwright.testing.stores import StoreConformance


class TestArchive(StoreConformance):
    def create(self, folder, campaign):
        return Archive.create(folder, campaign)

    def open(self, folder, *, read_only=False):
        return Archive.open(folder, read_only=read_only)
