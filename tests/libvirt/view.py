#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""view.py URI NAME: what a manager of virtual machines asks of a running domain to show it, as one JSON object.

The calls are those that virt-manager's list and details make by libvirt's Python binding; one that fails is an exception.
"""
import json
import sys
import xml.etree.ElementTree

import libvirt

uri, name = sys.argv[1:]
connection = libvirt.openReadOnly(uri)
domain = next(d for d in connection.listAllDomains() if d.name() == name)
state, maximum_kib, memory_kib, vcpu_count, cpu_nanoseconds = domain.info()
stats = next(s for d, s in connection.getAllDomainStats() if d.name() == name)
tree = xml.etree.ElementTree.fromstring(domain.XMLDesc(0))
vcpus, maps = domain.vcpus()
json.dump(
    {
        "type": connection.getType(),
        "state": state,
        "reason": domain.state()[1],
        "maximum_kib": maximum_kib,
        "memory_kib": memory_kib,
        "rss_kib": domain.memoryStats().get("rss", 0),
        "vcpu_count": vcpu_count,
        "vcpus_running": sum(v[1] == libvirt.VIR_VCPU_RUNNING for v in vcpus),
        "cpu_nanoseconds": cpu_nanoseconds,
        "stats_state": stats["state.state"],
        "is_active": domain.isActive() == 1,
        "is_persistent": domain.isPersistent() == 1,
        "autostart": domain.autostart(),
        "job": domain.jobInfo()[0],
        "has_saved_image": domain.hasManagedSaveImage(0),
        "snapshots": domain.snapshotListNames(),
        "console": tree.find("devices/console").get("tty"),
        "machine": tree.find("os/type").get("machine"),
        "emulator": tree.findtext("devices/emulator"),
    },
    sys.stdout,
)
