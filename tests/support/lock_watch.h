// SPDX-License-Identifier: Apache-2.0
/*
 * Locks of the code under test, watched: with this linked, a thread that unlocks a mutex which it does not hold, or waits
 * on a condition without its mutex, ends the program with a line. A lock that was forgotten shows at once, and not only
 * when two threads happen to meet. There is nothing to call.
 */
#ifndef LOAM_TEST_LOCK_WATCH_H
#define LOAM_TEST_LOCK_WATCH_H

#endif
