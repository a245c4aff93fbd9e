// SPDX-License-Identifier: Apache-2.0
#include "vmm/json_text.h"

#include "vmm/utf8.h"

#include <stdlib.h>
#include <string.h>

json_t *json_text(const char *text)
{
    char *repaired = malloc(UTF8_REPAIRED_BYTES(strlen(text)));
    json_t *string = NULL;

    if (repaired != NULL) {
        utf8_repair(text, strlen(text), repaired);
        string = json_string(repaired);
        free(repaired);
    }
    return string;
}
