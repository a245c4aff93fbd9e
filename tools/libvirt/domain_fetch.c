// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/domain_fetch.h"

#include <dlfcn.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libvirt.so.0"

/* libvirt's own functions, by their own types. */
struct library {
    __typeof__(virConnectOpenReadOnly) *open;
    __typeof__(virConnectClose) *close;
    __typeof__(virDomainLookupByName) *look_up;
    __typeof__(virDomainGetXMLDesc) *describe;
    __typeof__(virDomainFree) *forget;
    __typeof__(virGetLastErrorMessage) *last_error;
    __typeof__(virGetLastErrorCode) *last_code;
    __typeof__(virSetErrorFunc) *set_error_func;
};

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
    {"virConnectOpenReadOnly", offsetof(struct library, open)},
    {"virConnectClose", offsetof(struct library, close)},
    {"virDomainLookupByName", offsetof(struct library, look_up)},
    {"virDomainGetXMLDesc", offsetof(struct library, describe)},
    {"virDomainFree", offsetof(struct library, forget)},
    {"virGetLastErrorMessage", offsetof(struct library, last_error)},
    {"virGetLastErrorCode", offsetof(struct library, last_code)},
    {"virSetErrorFunc", offsetof(struct library, set_error_func)},
};

/* What libvirt would print is told in one line of ours. */
static void say_nothing(void *context, virErrorPtr error)
{
    (void)context;
    (void)error;
}

/* It stays loaded: it has threads and handlers of its own. */
static enum loam_error load(struct library *library, struct loam_diag *diag)
{
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (handle == NULL) {
        const char *why = dlerror();

        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "%s: install libvirt, or give a FILE.xml in place of a name",
                         why != NULL ? why : LIBRARY);
    }
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(handle, symbols[i].name);

        if (symbol == NULL) {
            return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, LIBRARY ": no %s: install another libvirt",
                             symbols[i].name);
        }
        memcpy((char *)library + symbols[i].offset, &symbol, sizeof symbol);
    }
    library->set_error_func(NULL, say_nothing);
    return LOAM_OK;
}

static enum loam_error fetch(const struct library *library, virConnectPtr connection, const char *name, char **xml,
                             struct loam_diag *diag)
{
    virDomainPtr domain = library->look_up(connection, name);
    enum loam_error error = LOAM_OK;

    if (domain == NULL) {
        return loam_fail(diag,
                         library->last_code() == VIR_ERR_NO_DOMAIN ? LOAM_ERROR_NOT_FOUND : LOAM_ERROR_NOT_PERMITTED,
                         "%s: %s", name, library->last_error());
    }
    *xml = library->describe(domain, VIR_DOMAIN_XML_INACTIVE);
    if (*xml == NULL) {
        error = loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "%s: %s", name, library->last_error());
    }
    library->forget(domain);
    return error;
}

enum loam_error domain_fetch(const char *uri, const char *name, char **xml, struct loam_diag *diag)
{
    struct library library;
    virConnectPtr connection;
    enum loam_error error;

    *xml = NULL;
    error = load(&library, diag);
    if (error != LOAM_OK) {
        return error;
    }
    if (uri == NULL) {
        uri = getenv("VIRSH_DEFAULT_CONNECT_URI");
    }
    connection = library.open(uri != NULL && *uri != '\0' ? uri : NULL);
    if (connection == NULL) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "%s: %s", uri != NULL ? uri : "libvirt", library.last_error());
    }
    error = fetch(&library, connection, name, xml, diag);
    library.close(connection);
    return error;
}
