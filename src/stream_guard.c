/*-------------------------------------------------------------------------
 *
 * stream_guard.c
 *	  Looks at whose code is about to run with the rights of a stream's owner.
 *
 * Functions can be replaced at any time: they are looked at when they are called.
 *
 * Whom to trust is left to stream_trust.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_guard.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "stream_trust.h"

/* A stream may be called for within the batch of another: the last one counts. */
#define GUARDS_AT_MOST 16

typedef struct Guard
{
	Oid owner;
	SubTransactionId subtransaction;
} Guard;

static Guard guard_stack[GUARDS_AT_MOST];
static int guard_count = 0;
static needs_fmgr_hook_type next_needs_hook = NULL;
static fmgr_hook_type next_hook = NULL;

static bool
guards(Oid function)
{
	return guard_count > 0 &&
	       !stream_trusts_function(function, guard_stack[guard_count - 1].owner);
}

static bool
needs_look(Oid function)
{
	return (next_needs_hook && next_needs_hook(function)) || guards(function);
}

/* Does what runs now have the rights that are guarded? */
static bool
is_guarded(void)
{
	return guard_count > 0 && GetUserId() == guard_stack[guard_count - 1].owner &&
	       InSecurityRestrictedOperation();
}

static void
look_at_call(FmgrHookEventType event, FmgrInfo *function, Datum *argument)
{
	if (event == FHET_START && is_guarded() && guards(function->fn_oid))
		stream_refuse_function(function->fn_oid, guard_stack[guard_count - 1].owner);
	if (next_hook)
		next_hook(event, function, argument);
}

/* An error ends what was guarded in it, and nothing else. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subtransaction,
                      SubTransactionId parent, void *argument)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (guard_count > 0 && guard_stack[guard_count - 1].subtransaction == subtransaction)
		guard_count--;
}

static void
at_transaction_end(XactEvent event, void *argument)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT)
		guard_count = 0;
}

void
stream_guard_begin(Oid owner)
{
	static bool installed = false;

	if (!installed)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		next_needs_hook = needs_fmgr_hook;
		next_hook = fmgr_hook;
		needs_fmgr_hook = needs_look;
		fmgr_hook = look_at_call;
		installed = true;
	}
	if (guard_count == GUARDS_AT_MOST)
		ereport(ERROR,
		        (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		         errmsg("streams are nested too deeply"),
		         errdetail("A batch of a stream runs others, %d deep.", GUARDS_AT_MOST)));
	guard_stack[guard_count].owner = owner;
	guard_stack[guard_count].subtransaction = GetCurrentSubTransactionId();
	guard_count++;
}

void
stream_guard_end(void)
{
	Assert(guard_count > 0);
	guard_count--;
}
