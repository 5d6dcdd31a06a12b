#!/usr/bin/env bash
# Deploys the collector with the gcloud CLI, as one file of settings says. Each step creates or
# updates, and does no harm where it has been done: run it again after a failure or a change.
set -euo pipefail

usage() {
	cat <<'END'
Usage: deploy/deploy.sh [--yes] [--dry-run|--rotate-key|--destroy] SETTINGS-FILE

Deploys the OpenAI audit log collector: the function, what triggers it, the bucket that a Google
SecOps feed reads, and its monitoring; or updates them. SETTINGS-FILE is all that it knows: begin
with a copy of deploy/settings.example. The Admin key is asked for, or read from standard input.

  --dry-run     print the commands that would change something, and change nothing
  --rotate-key  store another Admin key: the next run reads it
  --destroy     take down what it has made; buckets, with all that was collected, stay
  --yes         do not ask
END
}

# The key must not reach a child's environment, whatever this shell was started with.
set +a
unset admin_key OPENAI_ADMIN_KEY

readonly apis=(run cloudfunctions cloudbuild artifactregistry cloudresourcemanager pubsub cloudscheduler
	secretmanager storage logging monitoring iam)

# Each time-out is above the one before: a run ends by itself and commits, and nobody starts it a second time.
readonly request_timeout=540 ack_deadline=600 # RUN_TIMEOUT_SECONDS is 510 at most

# What Google documents for builds. The default account may have far more roles, or be missing.
readonly build_roles=(logging.logWriter artifactregistry.writer storage.objectViewer)

# Kinds of things without names of their own: what bears this deployment's name, a field, and the group.
readonly policy_kind=(userLabels.auditlog userLabels.sum alpha monitoring policies)
readonly channel_kind=(userLabels.auditlog labels.email_address beta monitoring channels)
readonly dashboard_kind=(displayName displayName monitoring dashboards)

mode='' dry_run='' yes='' file='' key_wanted='' auditlog=(go run ./cmd/auditlog)
declare -A setting=() # by name, with all defaults

main() {
	parse_flags "$@"
	file=$(realpath -- "$file")
	[[ ! ${AUDITLOG-} ]] || auditlog=("$(realpath -- "$(command -v "$AUDITLOG")")") # a released binary
	cd "$(dirname "${BASH_SOURCE[0]}")/.."
	exec 3>&1 # for what is printed while an answer is caught
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/auditlog-deploy.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	read_settings
	export CLOUDSDK_CORE_PROJECT=$project CLOUDSDK_CORE_DISABLE_PROMPTS=1
	say "In the project $project:"
	case $mode in
	'') deploy ;;
	--dry-run) dry_run=yes && deploy ;;
	--rotate-key) read_key && settle store_key && check ;;
	--destroy) destroy ;;
	*) die "$mode: give one of them" 2 ;;
	esac
}

deploy() {
	confirm_moves
	find_key
	settle change services enable "${apis[@]/%/.googleapis.com}"
	buckets_and_accounts
	roles_on_folders
	secret
	collector
	trigger
	monitoring
	check
	[[ $notify ]] || say 'NOBODY IS TOLD: without DEPLOY_NOTIFY, alerts open an incident in the console, and no more.'
	[[ $feed_reader ]] || say 'The feed cannot read the bucket yet: set DEPLOY_FEED_READER to the address that its "Get service account" shows.'
}

parse_flags() {
	while (($#)); do
		case $1 in
		-h | --help) usage && exit ;;
		--yes) yes=yes ;;
		--dry-run | --rotate-key | --destroy) mode+=$1 ;;
		-*) die "$1: no such flag" 2 ;;
		*) file+=$1 ;;
		esac
		shift
	done
	[[ -f $file ]] || die "there is no settings file ${file@Q}: begin with a copy of deploy/settings.example" 2
}

# read_settings has the collector judge the file, and takes its settings: each has a value, or is not there.
read_settings() {
	local lines line
	"${auditlog[@]}" --env-file "$file" check --settings-only || exit 2
	lines=$("${auditlog[@]}" --env-file "$file" settings)
	while IFS= read -r line; do
		setting[${line%%=*}]=${line#*=}
	done <<<"$lines"
	project=${setting[DEPLOY_PROJECT]} region=${setting[DEPLOY_REGION]} name=${setting[DEPLOY_NAME]}
	topic=${setting[DEPLOY_TOPIC]} secret=${setting[DEPLOY_SECRET]} notify=${setting[DEPLOY_NOTIFY]-} feed_reader=${setting[DEPLOY_FEED_READER]-}
	bucket=${setting[GCS_BUCKET]} prefix=${setting[GCS_PREFIX]} state_bucket=${setting[STATE_BUCKET]:-${setting[GCS_BUCKET]}} state_key=${setting[STATE_KEY]}
	feed_folder=gs://$bucket/$prefix/ state_folder=gs://$state_bucket/${state_key%/*}/

	# What follows from the time between two runs; the Terraform module computes the same.
	local interval=${setting[INTERVAL_MINUTES]}
	alert_hours=$(((2 * interval + 59) / 60 + 1)) # two runs missed, and an hour
	retry_window=$((interval > 20 ? 60 * (interval - 10) : 600)) # then the next run's event takes over
	backoff=$((interval > 30 ? 60 : interval < 5 ? 10 : 2 * interval)) # five attempts take half an interval

	local host=$project # of a project example.com:my-project: my-project.example.com
	[[ $project != *:* ]] || host=${project#*:}.${project%%:*}
	host+=.iam.gserviceaccount.com
	run_account=$name@$host push_account=$name-push@$host build_account=$name-build@$host
}

# look COMMAND...: is it there? Where it cannot be looked at, the creation that follows says why.
look() { gcloud "$@" </dev/null >/dev/null 2>&1; }

# change COMMAND...: prints the command, and runs it.
change() {
	{ printf '+ gcloud' && printf ' %q' "$@" && printf '\n'; } >&3
	[[ $dry_run ]] || gcloud "$@" </dev/null
}

# ask PLACEHOLDER COMMAND...: prints the answer. In a dry run there may be none yet.
ask() {
	[[ $dry_run ]] || settle gcloud "${@:2}" </dev/null
	[[ ! $dry_run ]] || gcloud "${@:2}" </dev/null 2>/dev/null || say "$1"
}

# settle COMMAND...: a new API, account, role or bucket is not known everywhere at once, so a
# command that needs one is given time: $pauses has the seconds between its attempts.
pauses='2 4 8 16 32 32'
settle() {
	local pause
	for pause in $pauses; do
		! "$@" || return 0
		say "  again in $pause seconds: what is new may not be known everywhere yet" >&2
		sleep "$pause"
	done
	"$@" || die "it stays so. Mend what gcloud names above, and run this again: what is there is kept"
}

# kind GROUP: $group has the words of a group of commands, $where the flags that say where; and so on.
kind() {
	read -ra group <<<"$1"
	where=() type=() condition=(--condition=None)
	case $1 in
	pubsub*) condition=() ;;
	functions) where=(--gen2 --region="$region") ;;
	'run services') where=(--region="$region") ;;
	'scheduler jobs') where=(--location="$region") type=(pubsub) ;;
	esac
}

# ensure GROUP NAME [FLAG...]: creates it, unless it is there.
ensure() { update='' settle apply "$1" "$2" '' "${@:3}" >/dev/null; }

# put GROUP NAME FLAG-OF-CREATION [FLAG...]: creates or updates it.
put() { update=yes settle apply "$@" >/dev/null; }

apply() {
	local id=$2
	kind "$1"
	[[ $1 != 'iam service-accounts' ]] || id=${2%%@*} # the rest of its address is the project's
	if ! look "${group[@]}" describe "$2" "${where[@]}"; then
		change "${group[@]}" create "${type[@]}" "$id" "${where[@]}" ${3:+"$3"} "${@:4}"
	elif [[ $update ]]; then
		change "${group[@]}" update "${type[@]}" "$id" "${where[@]}" "${@:4}"
	fi
}

# grant ROLE ACCOUNT GROUP NAME
grant() {
	kind "$3"
	settle change "${group[@]}" add-iam-policy-binding "$4" "${where[@]}" --member="serviceAccount:$2" --role="roles/$1" "${condition[@]}" >/dev/null
}

# revoke ROLE ACCOUNT GROUP NAME: what is not granted cannot be revoked, and is no fault.
revoke() {
	kind "$3"
	look "${group[@]}" remove-iam-policy-binding "$4" --member="serviceAccount:$2" --role="roles/$1" "${condition[@]}" || true
}

# drop GROUP NAME LABEL: deletes it, if it is there with that label; "" for none.
drop() {
	local is
	kind "$1"
	if ! is=$(gcloud "${group[@]}" describe "$2" "${where[@]}" --format='value(labels.auditlog)' </dev/null 2>"$tmp/why"); then
		say "  not deleted: $2: $(tail -n 1 "$tmp/why")"
	elif [[ $is != "$3" ]]; then
		say "  kept: $2 is not of this script's making"
	else
		change "${group[@]}" delete "$2" "${where[@]}"
	fi
}

say() { printf '%s\n' "$@"; }

die() {
	say "deploy.sh: $1" >&2
	exit "${2:-1}"
}

confirm() {
	[[ ! $yes && ! $dry_run ]] || return 0
	[[ -t 0 ]] || die "$1 Nobody can be asked, since standard input is no terminal: give --yes"
	read -rp "$1 [y/N] "
	[[ $REPLY == [yY]* ]] || die 'nothing was changed'
}

# confirm_moves shows where a deployed function keeps its objects, if that changes: it would leave
# behind what it has collected, or begin anew.
confirm_moves() {
	local i moves='' is unseen='' from names=(GCS_BUCKET GCS_PREFIX STATE_BUCKET STATE_KEY)
	is=$(gcloud services list --enabled --filter=config.name=cloudfunctions.googleapis.com --format='value(config.name)' </dev/null) || unseen=yes
	[[ ! $is ]] || is=$(gcloud functions list --v2 --regions="$region" --filter="name~/$name\$" </dev/null \
		--format="value[separator='|'](environment,eventTrigger.eventType$(printf ',serviceConfig.environmentVariables.%s' "${names[@]}"))") || unseen=yes
	[[ ! $unseen || $dry_run ]] || die 'it cannot be seen whether there is a function; nothing was changed'
	[[ $is ]] || return 0
	[[ $is == 'GEN_2||'* ]] || die "the function $name is there, and is triggered by events, which cannot be changed: see docs/migrate.md, or give another DEPLOY_NAME"
	IFS='|' read -ra from <<<"${is#GEN_2||}"
	for i in "${!names[@]}"; do
		[[ ${from[i]-} == "${setting[${names[i]}]-}" ]] || moves+="  ${names[i]}: ${from[i]:-not set} -> ${setting[${names[i]}]:-not set}"$'\n'
	done
	[[ $moves ]] || return 0
	say "The function $name moves:" "${moves%$'\n'}" 'Without its state, the next run is a first run. To go on where it is, pause the schedule, copy it, and resume the schedule in the end:' \
		"  gcloud storage cp gs://${from[2]:-${from[0]-}}/${from[3]-} gs://$state_bucket/$state_key"
	confirm 'Go ahead?'
}

find_key() {
	local state
	state=$(gcloud secrets versions describe latest --secret="$secret" --format='value(state)' </dev/null 2>/dev/null) || state=''
	[[ ${state,,} == enabled ]] || key_wanted=yes
	[[ ! $key_wanted || $dry_run ]] || read_key
}

# read_key takes the key from the terminal, or all of standard input, into a variable that is not
# exported. No trace shows it.
read_key() {
	local - LC_ALL=C
	set +x
	if [[ -t 0 ]]; then
		IFS= read -rsp 'OpenAI Admin key, with the scope api.audit_logs.read alone (nothing is shown): ' admin_key
		say ''
	else
		admin_key=$(cat)
	fi
	admin_key=${admin_key%$'\r'}
	[[ $admin_key && $admin_key != *[![:graph:]]* ]] || die 'no Admin key was given, or one with white space in it; nothing was changed'
}

# store_key gives gcloud the key on its standard input.
store_key() {
	local -
	set +x
	say "+ gcloud secrets versions add $secret --data-file=-" >&3
	[[ $dry_run ]] || printf %s "$admin_key" | gcloud secrets versions add "$secret" --data-file=- >/dev/null
}

buckets_and_accounts() {
	local each
	for each in "$bucket" "$state_bucket"; do # mostly the same
		ensure 'storage buckets' "gs://$each" --location="${setting[DEPLOY_LOCATION]}" --uniform-bucket-level-access --public-access-prevention
	done
	ensure 'iam service-accounts' "$run_account" --display-name='OpenAI audit log collector'
	ensure 'iam service-accounts' "$push_account" --display-name='Triggers the OpenAI audit log collector'
	ensure 'iam service-accounts' "$build_account" --display-name='Builds the OpenAI audit log collector'
	for each in "${build_roles[@]}"; do
		grant "$each" "$build_account" projects "$project"
	done
}

# Managed folders bound what the collector, and the feed, can do within a bucket. Under the feed's
# prefix the collector can neither replace nor delete.
roles_on_folders() {
	local role=storage.objectViewer
	ensure 'storage managed-folders' "$feed_folder"
	ensure 'storage managed-folders' "$state_folder"
	grant storage.objectCreator "$run_account" 'storage managed-folders' "$feed_folder"
	grant storage.objectUser "$run_account" 'storage managed-folders' "$state_folder"
	# From a state bucket an object is published by a copy; whether one whose answer was lost is
	# there can only be read.
	[[ $state_bucket == "$bucket" ]] || grant storage.objectViewer "$run_account" 'storage managed-folders' "$feed_folder"

	[[ $feed_reader ]] || return 0
	[[ ${setting[DEPLOY_FEED_DELETES]} == false ]] || role=storage.objectUser
	grant "$role" "$feed_reader" 'storage managed-folders' "$feed_folder"
	grant storage.legacyBucketReader "$feed_reader" 'storage buckets' "gs://$bucket" # it also lists the bucket
}

secret() {
	ensure secrets "$secret" --replication-policy=user-managed --locations="$region" --labels="auditlog=$name"
	[[ ! $key_wanted ]] || settle store_key
	grant secretmanager.secretAccessor "$run_account" secrets "$secret"
}

collector() {
	local key key_file=/secrets/openai/admin-key memory=${setting[DEPLOY_MEMORY_MIB]} env
	env="^|^OPENAI_ADMIN_KEY_FILE=$key_file|GOMEMLIMIT=$((memory * 3 / 4))MiB" # garbage is collected rather than this passed
	for key in $(say "${!setting[@]}" | sort); do
		[[ $key == DEPLOY_* ]] || env+="|$key=${setting[$key]}"
	done
	local flags=(
		--runtime=go126 --source=. --entry-point=main --update-labels="auditlog=$name"
		--trigger-http --no-allow-unauthenticated
		--ingress-settings=internal-only # Pub/Sub of this project counts as internal
		--run-service-account="$run_account"
		--build-service-account="projects/$project/serviceAccounts/$build_account"
		--memory="${memory}Mi" --cpu=1 --concurrency=1 # a run an instance
		--min-instances=0 --max-instances=1 --timeout="${request_timeout}s"
		--set-env-vars="$env"
		--set-secrets="$key_file=$secret:latest" # each run reads the file, and so the latest version
		# Without gRPC it is a third smaller, and starts faster; the latter without C, too.
		--set-build-env-vars='GOFLAGS=-tags=disable_grpc_modules,GOOGLE_GOLDFLAGS=-s -w,CGO_ENABLED=0'
	)
	pauses='30 60' settle change functions deploy "$name" --gen2 --region="$region" "${flags[@]}" >/dev/null # takes minutes
}

# Not Eventarc: it owns its subscription, whose retry delays, retention and dead letters can only be
# changed outside Eventarc, without its knowing.
trigger() {
	local dead=$name-dead-letter path=projects/$project/topics/$topic agent of uri
	ensure 'pubsub topics' "$topic" --labels="auditlog=$name"
	# What failed five times is kept to be looked at. Nothing is lost by it: the next run reads the
	# same records.
	ensure 'pubsub topics' "$dead" --labels="auditlog=$name"
	put 'pubsub subscriptions' "$dead" --topic="$dead" --message-retention-duration=604800s --expiration-period=never

	settle change beta services identity create --service=pubsub.googleapis.com >/dev/null
	agent=service-$(ask NUMBER projects describe "$project" --format='value(projectNumber)')@gcp-sa-pubsub.iam.gserviceaccount.com
	grant run.invoker "$push_account" 'run services' "$name"
	grant iam.serviceAccountTokenCreator "$agent" 'iam service-accounts' "$push_account"
	grant pubsub.publisher "$agent" 'pubsub topics' "$dead"

	of=$(ask '' pubsub subscriptions list --filter="name~/$name\$" --format='value(topic)')
	[[ ! $of || $of == "$path" ]] || settle change pubsub subscriptions delete "$name" >/dev/null # its topic cannot be changed
	uri=$(ask SERVICE_URI functions describe "$name" --gen2 --region="$region" --format='value(serviceConfig.uri)')
	# At this path the functions framework knows a push of Pub/Sub for what it is.
	put 'pubsub subscriptions' "$name" --topic="$topic" \
		--push-endpoint="$uri/$path" --push-auth-service-account="$push_account" --push-auth-token-audience="$uri" \
		--ack-deadline="$ack_deadline" --message-retention-duration="${retry_window}s" --expiration-period=never \
		--min-retry-delay="${backoff}s" --max-retry-delay=600s --dead-letter-topic="$dead" --max-delivery-attempts=5
	grant pubsub.subscriber "$agent" 'pubsub subscriptions' "$name"
	put 'scheduler jobs' "$name" '' --schedule="${setting[DEPLOY_SCHEDULE]}" --time-zone=Etc/UTC --topic="$path" --message-body='{}'
}

# The files are in the form of Google's APIs, with placeholders.
monitoring() {
	local file sum sums='' to id channels='' have
	for file in deploy/monitoring/metrics/*.json; do
		fill "$file"
		put 'logging metrics' "$(metric "$file")" '' --config-from-file="$filled"
	done
	have=$(own "${channel_kind[@]}")
	for to in ${notify//,/ }; do
		id=$to
		if [[ $to != projects/* ]]; then
			id=$(sed -n "s/^${to//./\\.}|//p" <<<"$have")
			[[ $id ]] || id=$(settle change beta monitoring channels create --type=email --display-name="$name: $to" \
				--channel-labels="email_address=$to" --user-labels="auditlog=$name" --format='value(name)')
		fi
		channels+=${channels:+,}${id:-CHANNEL}
	done
	have=$(own "${policy_kind[@]}")
	for file in deploy/monitoring/alerts/*.json; do
		fill "$file"
		sum=$(say "$channels" | cat - "$filled" | cksum)
		sum=${sum%% *} sums+=" ${sum%% *}"
		# One that is as it should be is left alone, with its incidents.
		[[ $'\n'$have == *$'\n'"$sum|"* ]] || settle change alpha monitoring policies create --policy-from-file="$filled" \
			--user-labels="auditlog=$name,sum=$sum" ${channels:+"--notification-channels=$channels"} >/dev/null
	done
	drop_own "$sums" "${policy_kind[@]}"
	drop_own "${notify//,/ }" "${channel_kind[@]}"
	fill deploy/monitoring/dashboard.json
	have=$(own "${dashboard_kind[@]}")
	[[ $have ]] || settle change monitoring dashboards create --config-from-file="$filled" >/dev/null # people move charts
}

# own KIND...: a line FIELD|id of each that is this deployment's.
own() { ask '' "${@:3}" list --format="value[separator='|']($1,$2,name)" | sed -n "s/^$name|//p"; }

# drop_own KEPT KIND...: deletes this deployment's, but for those whose field is one of the words KEPT.
drop_own() {
	local have field id
	have=$(own "${@:2}")
	while IFS='|' read -r field id; do
		[[ ! $id || " $1 " == *" $field "* ]] || change "${@:4}" delete "$id" || say "  not deleted: $id" # others may use it
	done <<<"$have"
}

metric() { basename "${name//-/_}_${1##*/}" .json; }

# fill FILE: $filled is then the path of a copy, with the placeholders filled in.
fill() {
	filled=$tmp/${1##*/}
	sed -e "s|\${name}|$name|g; s|\${metric}|${name//-/_}|g; s|\${hours}|$alert_hours|g; s|\${lag_seconds}|$((3600 * (alert_hours + 1)))|g" \
		-e 's/"evaluationInterval"/"disableMetricValidation": true, &/' "$1" >"$filled" # a metric may be as new as its alert
	! grep -F "\${" "$filled" || die "$1 has a placeholder that nobody fills in"
}

# check lets the function check itself, and shows what it finds.
check() {
	local log=(logging read --order=asc --format='value(severity,jsonPayload.message,jsonPayload.remedy)'
		"resource.labels.service_name=\"$name\" AND jsonPayload.message:\"Check \" AND timestamp>=\"$(date -u +%FT%TZ)\"")
	settle change pubsub topics publish "$topic" --message='{"check": true}' >/dev/null
	[[ $dry_run ]] || sleep 60 # until it has checked, and the log has it
	settle change "${log[@]}"
	say 'Where the last line is not "Check ended", give the last command again in a minute.'
}

destroy() {
	local each
	confirm "Take down $name in the project $project? Buckets, and what is in them, stay."
	drop 'scheduler jobs' "$name" ''
	drop 'pubsub subscriptions' "$name" ''
	drop functions "$name" "$name"
	drop 'pubsub subscriptions' "$name-dead-letter" ''
	drop 'pubsub topics' "$name-dead-letter" "$name"
	drop 'pubsub topics' "$topic" "$name"
	drop secrets "$secret" "$name"

	drop_own '' "${policy_kind[@]}"
	drop_own '' "${channel_kind[@]}"
	drop_own '' "${dashboard_kind[@]}"
	for each in deploy/monitoring/metrics/*.json; do
		drop 'logging metrics' "$(metric "$each")" ''
	done

	# Roles of a deleted account would stay, as those of nobody.
	revoke storage.objectCreator "$run_account" 'storage managed-folders' "$feed_folder"
	revoke storage.objectViewer "$run_account" 'storage managed-folders' "$feed_folder"
	revoke storage.objectUser "$run_account" 'storage managed-folders' "$state_folder"
	revoke secretmanager.secretAccessor "$run_account" secrets "$secret"
	for each in "${build_roles[@]}"; do
		revoke "$each" "$build_account" projects "$project"
	done
	for each in "$build_account" "$push_account" "$run_account"; do
		drop 'iam service-accounts' "$each" ''
	done
	say "Kept: the buckets, with all that was collected, what the feed's account may do there, and the APIs."
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
