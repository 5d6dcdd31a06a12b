#!/usr/bin/env bash
# Deploys the collector with the gcloud CLI alone. It goes through the same steps
# twice: once to look and to show what is missing, and once, after a yes, to
# change it. Each step looks first, so that it can be run again at any time.
set -euo pipefail

if ((BASH_VERSINFO[0] < 5)); then
	echo 'deploy.sh: bash 5 or newer is needed; Cloud Shell has it, macOS gets it by: brew install bash' >&2
	exit 1
fi

usage() {
	cat <<'END'
Usage: deploy/deploy.sh --bucket BUCKET [flags]
       deploy/deploy.sh --destroy [flags]

Deploys the OpenAI audit log collector: a function, what triggers it, the bucket
that a Google SecOps feed reads, and its monitoring. Shows what is missing, asks,
and creates it. Run it again to update: what is there is kept, the function is
deployed anew. The OpenAI Admin key is asked for, or read from standard input
where that is no terminal.

Where and what
  --project P            project (default: that of gcloud's configuration)
  --region R             region of the function and its schedule (us-central1)
  --name NAME            name of all that is made; 6 to 23 of a-z, 0-9 and - (openai-auditlog)
  --topic TOPIC          Pub/Sub topic that triggers a run (NAME)
  --schedule CRON        when to run, in UTC ('0 * * * *')
  --retry-window S       how long a failed run is tried again, in seconds, 600 to 604800;
                         keep it below the schedule's period (3000)

Buckets
  --bucket BUCKET        bucket that the feed reads; made if it is missing
  --location L           location of buckets that are made (the region)
  --prefix PREFIX        the feed's folder in the bucket (NAME)
  --versioning           keep older versions of objects
  --retention-days N     nobody can replace or delete an object for N days; the state
                         then gets a bucket of its own
  --state-bucket BUCKET  that bucket (with --retention-days: BUCKET-state)

Feed
  --feed-reader EMAIL    service account of the SecOps feed; may read the bucket
  --feed-deletes         the feed deletes what it has read; not with --retention-days

Collector
  --max-records N        most records a run
  --overlap-seconds N    how far a run reaches back behind what is collected (900)
  --lookback-hours N     how far back the first run reaches
  --base-url URL         API base URL: a regional host or a proxy
  --setting NAME=VALUE   another setting of the README, such as TENANT_EVENTS=true;
                         can be given more than once
  --max-instances N      most instances at once (1)
  --memory SIZE          memory of an instance (256Mi)
  --rotate-key           store another Admin key

Monitoring
  --notify EMAIL         whom alerts are mailed to
  --alert-hours N        alert after N hours without a good run, 1 to 24 (3)
  --alert-lag-seconds N  alert when records older than this are left uncollected (14400)
  --readme-url URL       where the README can be read; alerts link to it

  --dry-run              print the commands, and change nothing
  --yes                  do not ask
  --destroy              take everything down but the buckets
  -h, --help             this text
END
}

# The key must not reach a child's environment, whatever this shell was started with.
set +a
unset admin_key OPENAI_ADMIN_KEY

readonly oldest_gcloud=500
readonly apis=(run cloudfunctions cloudbuild artifactregistry pubsub cloudscheduler
	secretmanager storage logging monitoring iam)

# Each time-out is above the one before, so that a run ends by itself: it commits
# what it has read, and nobody cuts it off or starts it a second time.
readonly run_timeout=480 request_timeout=540 ack_deadline=600

project='' region=us-central1 name=openai-auditlog topic='' schedule='0 * * * *' retry_window=3000
bucket='' location='' prefix='' versioning='' retention_days='' state_bucket=''
feed_reader='' feed_deletes=''
max_records='' overlap_seconds=900 lookback_hours='' base_url='' settings=() max_instances=1 memory=256Mi rotate_key=''
notify='' alert_hours=3 alert_lag_seconds=14400 readme_url=README.md
dry_run='' yes='' action=deploy

main() {
	parse "$@"
	check_flags
	cd "$(dirname "${BASH_SOURCE[0]}")/.."
	make_temporary_folder
	check_needs

	run_account=$name@$project.iam.gserviceaccount.com
	push_account=$name-push@$project.iam.gserviceaccount.com
	build_account=$name-build@$project.iam.gserviceaccount.com
	phase=plan
	if [[ $dry_run ]]; then
		say "cd ${PWD@Q} # what $action does in project $project:"
	else
		say "What $action does in project $project:"
	fi
	"$action"
	if [[ $dry_run ]]; then
		[[ ! $filled_files || $action != deploy ]] || say "# The files that these commands name are in $tmp."
		return
	fi
	if ((changes == 0)); then
		say '  nothing: all is as it should be'
	else
		confirm
		[[ ! $key_wanted ]] || read_key
		phase=apply
		say 'Going ahead:'
		"$action"
	fi
	"after_$action"
}

# What is deployed, in order.
deploy() {
	enable_apis
	buckets
	accounts
	folders
	secret
	topics
	collector
	trigger
	monitoring
}

after_deploy() {
	local deletion='never delete files'
	[[ ! $feed_deletes ]] || deletion='delete transferred files'
	cat <<END

Done. To run it now, and to see how it went:
  gcloud scheduler jobs run $name --location=$region --project=$project
  gcloud logging read 'resource.type="cloud_run_revision" AND resource.labels.service_name="$name" AND jsonPayload.run.duration_seconds>=0' --limit=5 --format='value(timestamp,jsonPayload.message)' --project=$project

The feed, in SecOps under Settings > SIEM Settings > Feeds:
  source type         Google Cloud Storage V2
  log type            OPENAI_AUDITLOG (OpenAI Audit Logs)
  storage bucket URI  gs://$bucket/$prefix/
  deletion option     $deletion
END
	[[ $feed_reader ]] || say "Run this again with --feed-reader and the address that the feed's \"Get a service account\" shows."
}

# --- flags ---

parse() {
	while (($# > 0)); do
		case $1 in
		-h | --help)
			usage
			exit 0
			;;
		--versioning) versioning=yes ;;
		--feed-deletes) feed_deletes=yes ;;
		--rotate-key) rotate_key=yes ;;
		--dry-run) dry_run=yes ;;
		--yes) yes=yes ;;
		--destroy) action=destroy ;;
		--*=*) set_option "${1%%=*}" "${1#*=}" ;;
		--*)
			set_option "$@"
			shift
			;;
		*) usage_error "$1: not a flag" ;;
		esac
		shift
	done
}

# set_option FLAG VALUE...: keeps the value in the variable of the flag's name.
set_option() {
	case $1 in
	--project | --region | --name | --topic | --schedule | --retry-window | \
		--bucket | --location | --prefix | --retention-days | --state-bucket | --feed-reader | \
		--max-records | --overlap-seconds | --lookback-hours | --base-url | --setting | --max-instances | --memory | \
		--notify | --alert-hours | --alert-lag-seconds | --readme-url) ;;
	--versioning | --feed-deletes | --rotate-key | --dry-run | --yes | --destroy) usage_error "$1 takes no value" ;;
	*) usage_error "$1: no such flag" ;;
	esac
	if (($# < 2)) || [[ ! $2 || $2 == --* ]]; then
		usage_error "$1 needs a value"
	fi
	if [[ $1 == --setting ]]; then
		settings+=("$2")
		return
	fi
	local variable=${1#--}
	printf -v "${variable//-/_}" '%s' "$2"
}

check_flags() {
	local label='[A-Za-z0-9_][A-Za-z0-9._-]*' email='^[^][:space:]@,|"]+@[A-Za-z0-9.-]+$'
	[[ ! $project ]] || matches project '^[a-z][a-z0-9.:-]+$' 'is not the ID of a project'
	matches region '^[a-z]+-[a-z]+[0-9]+$' 'is not a region'
	matches name '^[a-z][a-z0-9-]{4,21}[a-z0-9]$' 'must be 6 to 23 of a-z, 0-9 and -: service accounts are named after it'
	: "${topic:=$name}" "${prefix:=$name}" "${location:=$region}"
	matches topic '^[A-Za-z][A-Za-z0-9._~%+-]{2,254}$' "is not a topic's name: give it without projects/…/topics/"
	[[ $topic != "$name-dead-letter" ]] || usage_error "--topic $topic: that is where messages go that have failed"
	matches schedule '^[][A-Za-z0-9*/,: -]+$' 'is not a cron expression'
	number retry_window 600 604800
	if [[ $bucket || $action == deploy ]]; then
		[[ $bucket ]] || usage_error '--bucket is missing: the bucket that the feed reads'
		matches bucket '^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$' "is not a bucket's name: give it without gs:// and without a folder"
	fi
	matches location '^[A-Za-z0-9-]+$' 'is not a location'
	matches prefix "^$label(/$label)*\$" 'must be a path of letters, digits, . _ and -, without a slash at its ends'
	((${#prefix} <= 200)) || usage_error '--prefix is too long'
	if [[ $prefix == state || $prefix == state/* ]]; then
		usage_error '--prefix must not lie in the folder state/, which is not for the feed'
	fi
	if [[ $retention_days ]]; then
		number retention_days 1 36500
		[[ ! $feed_deletes ]] || usage_error '--feed-deletes: with --retention-days the feed can delete nothing'
		[[ ! $versioning ]] || usage_error '--versioning: a bucket has either versions or a retention policy'
		: "${state_bucket:=$bucket-state}"
	fi
	if [[ $state_bucket && $bucket ]]; then
		matches state_bucket '^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$' "is not a bucket's name: give one"
		[[ $state_bucket != "$bucket" ]] || usage_error '--state-bucket must not be the bucket that the feed reads'
		[[ ! $feed_deletes ]] || usage_error '--feed-deletes: with --state-bucket the feed must never delete; a copy and a delete are not one step'
	fi
	[[ ! $feed_reader ]] || matches feed_reader "$email" 'is not the address of a service account'
	[[ ! $feed_deletes || $feed_reader || $action == destroy ]] || usage_error '--feed-deletes needs --feed-reader'
	[[ ! $max_records ]] || number max_records 1 2147483648
	number overlap_seconds 0 31622400
	[[ ! $lookback_hours ]] || number lookback_hours 1 878400
	[[ ! $base_url ]] || matches base_url '^https?://[^][:space:]|?#"\\@]+$' 'is not an http or https URL without user, query and fragment'
	local setting
	for setting in "${settings[@]}"; do
		[[ $setting =~ ^(PAGE_SIZE|FETCH_CONCURRENCY|TENANT_EVENTS|EVENT_TYPES|PROJECT_IDS|ACTOR_EMAILS|ACTOR_IDS|RESOURCE_IDS)=[^[:cntrl:]\|]+$ ]] ||
			usage_error "--setting $setting: is not NAME=VALUE of a setting that has no flag"
	done
	number max_instances 1 1000
	matches memory '^[1-9][0-9]{0,4}(Mi|Gi)$' 'is not a size such as 256Mi'
	[[ ! $notify ]] || matches notify "$email" 'is not an e-mail address'
	number alert_hours 1 24
	number alert_lag_seconds 1 31622400
	matches readme_url '^[^][:space:]"\\$]+$' 'is not a URL'
	[[ ! $rotate_key || $action == deploy ]] || usage_error '--rotate-key: not with --destroy'
	if [[ ! $dry_run && ! $yes && ! -t 0 ]]; then
		usage_error 'standard input is no terminal, so nobody can be asked: give --yes, or --dry-run to look'
	fi
}

# matches VARIABLE PATTERN FAULT
matches() {
	[[ ${!1} =~ $2 ]] || usage_error "--${1//_/-} ${!1}: $3"
}

# number VARIABLE LOW HIGH
number() {
	matches "$1" '^(0|[1-9][0-9]{0,9})$' 'is not a whole number'
	((${!1} >= $2 && ${!1} <= $3)) || usage_error "--${1//_/-} ${!1}: is not in $2 to $3"
}

usage_error() {
	printf 'deploy.sh: %s\nTry deploy/deploy.sh --help\n' "$1" >&2
	exit 2
}

# --- what the script itself needs ---

make_temporary_folder() {
	filled_files= # that a dry run names, and leaves
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/auditlog-deploy.XXXXXX")
	trap '[[ $dry_run && $filled_files && $action == deploy ]] || rm -rf "$tmp"' EXIT
}

check_needs() {
	command -v gcloud >/dev/null || die 'gcloud is missing: https://cloud.google.com/sdk/docs/install'
	# Prompts would wait for an answer where nobody looks.
	export CLOUDSDK_CORE_DISABLE_PROMPTS=1 CLOUDSDK_CORE_SHOULD_PROMPT_TO_ENABLE_API=false
	local version account file
	version=$(gcloud version --format='value("Google Cloud SDK")' </dev/null)
	if ! [[ $version =~ ^([0-9]+)\. ]] || ((BASH_REMATCH[1] < oldest_gcloud)); then
		die "gcloud is too old: ${version:-unknown}, and $oldest_gcloud is needed: gcloud components update"
	fi
	for file in function.go go.mod go.sum .gcloudignore deploy/gcloud/state-lifecycle.json; do
		[[ -f $file ]] || die "$PWD/$file is missing: take a whole checkout"
	done
	if [[ ! $project ]]; then
		project=$(gcloud config get-value project 2>/dev/null </dev/null)
		[[ $project && $project != '(unset)' ]] || die 'no project: give --project, or set one: gcloud config set project P'
	fi

	offline=
	account=$(gcloud auth list --filter=status:ACTIVE --format='value(account)' 2>/dev/null </dev/null)
	[[ $account ]] || account=$(gcloud config get-value auth/access_token_file 2>/dev/null </dev/null)
	if [[ ! $account || $account == '(unset)' ]]; then
		[[ $dry_run ]] || die 'nobody is logged in: gcloud auth login'
		offline='nobody is logged in'
	elif ! gcloud projects describe "$project" --format='value(projectNumber)' </dev/null >"$tmp/number" 2>"$tmp/err"; then
		if [[ ! $dry_run || $(<"$tmp/err") =~ $denied|$not_found ]]; then
			die "project $project: $(<"$tmp/err")"
		fi
		offline=$(<"$tmp/err")
	fi
	if [[ $offline ]]; then
		say "# Note: the cloud cannot be looked at ($offline), so all is shown as if it were missing."
		say "PROJECT_NUMBER=\$(gcloud projects describe $project --format='value(projectNumber)')"
		project_number=@PROJECT_NUMBER@
	else
		project_number=$(<"$tmp/number")
	fi
}

confirm() {
	[[ ! $yes ]] || return 0
	local answer
	read -rp 'Go ahead? [y/N] ' answer
	[[ $answer == [yY] || $answer == [yY]es ]] || die 'nothing was changed'
}

# --- looking and changing ---

changes=0
output=
found=

# What gcloud says of a thing that is not there, of one that may not be looked
# at, of an API that is not enabled, and of a change that others have not heard of.
readonly not_found='NOT_FOUND|[Nn]ot found|status=\[404\]'
readonly denied='PERMISSION_DENIED|denied|HTTPError 40[13]|status=\[40[13]\]'
readonly disabled='SERVICE_DISABLED|has not been used in project|is not enabled|not enabled on project'
readonly unsettled='does not exist|Permission denied on secret|does not have storage\.objects\.get access'

# look COMMAND...: runs a command that changes nothing; its output is then in
# $found. It fails if the thing is not there; any other failure ends the script,
# since what could not be looked at is not known to be missing.
look() {
	found=
	[[ ! $offline && ! ${missing[$*]-} ]] || return 1
	[[ ${answers[$*]+set} ]] || ask_cloud "$@" || return 1
	found=${answers[$*]}
}

declare -A answers=() missing=() # by command: each is run once

ask_cloud() {
	local why tries=0
	until run "$@" >"$tmp/out" 2>"$tmp/err"; do
		why=$(<"$tmp/err")
		if [[ $why =~ $disabled ]]; then
			# Nothing is there before an API is enabled. That takes a while to be heard of.
			[[ $phase == apply && $action == deploy ]] || return 1
			((++tries <= 24)) || die "still not enabled: $why"
			sleep 5
		elif [[ $why =~ $not_found && ! $why =~ $denied ]]; then
			missing[$*]=yes
			return 1
		else
			die "cannot tell what is there: $(shown "$@")"$'\n'"$why"
		fi
	done
	answers[$*]=$(<"$tmp/out") missing[$*]=''
}

# listed LINE: is it a line of what was found?
listed() { [[ $'\n'$found$'\n' == *$'\n'"$1"$'\n'* ]]; }

# change WHAT COMMAND...: says what a command changes, or prints it, or runs it.
change() {
	announce "$1" || return 0
	shift
	if [[ $phase == plan ]]; then
		shown "$@"
	else
		attempt run "$@"
	fi
}

# change_into VARIABLE WHAT COMMAND...: a change whose output is needed later.
change_into() {
	local variable=$1
	printf -v "$variable" '@%s@' "${variable^^}"
	announce "$2" || return 0
	shift 2
	if [[ $phase == plan ]]; then
		say "${variable^^}=\$($(shown "$@"))"
	else
		attempt run "$@"
		printf -v "$variable" '%s' "$output"
	fi
}

# announce says what is about to change, and whether there is more to do.
announce() {
	((++changes))
	if [[ $dry_run ]]; then
		say "# ${1//@PROJECT_NUMBER@/PROJECT_NUMBER}"
	else
		say "  $1"
	fi
	[[ $phase == apply || $dry_run ]]
}

# attempt COMMAND...: a new account, role or bucket is not known everywhere at once.
attempt() {
	local tries=0
	until "$@" >"$tmp/out" 2>"$tmp/err"; do
		if ! [[ $(<"$tmp/err") =~ $unsettled ]] || ((++tries > 12)); then
			shift
			die "failed: $(shown "$@")"$'\n'"$(<"$tmp/err")"$'\nMend it and run this again: what is there is kept.'
		fi
		sleep 5
	done
	output=$(<"$tmp/out")
}

run() {
	gcloud "$@" --project="$project" --quiet </dev/null
}

# shown COMMAND...: the command as one can paste it into a shell.
shown() {
	local word line=gcloud
	for word in "$@" --project="$project" --quiet; do
		if [[ $word =~ ^[A-Za-z0-9_./:=@,+-]+$ ]]; then
			line+=" $word"
		elif [[ $word =~ ^--[a-z-]+= ]]; then
			word=${word#"${BASH_REMATCH[0]}"}
			line+=" ${BASH_REMATCH[0]}${word@Q}"
		else
			line+=" ${word@Q}"
		fi
	done
	# What only an earlier command can tell is a variable.
	for word in PROJECT_NUMBER SERVICE_URI CHANNEL; do
		line=${line//"@$word@"/"\"\$$word\""}
	done
	say "$line"
}

# grant MEMBER ROLE RESOURCE GROUP...: on the resource of that group of commands.
grant() {
	local member=$1 role=$2 resource=$3
	shift 3
	has_role "$member" "$role" "$resource" "$@" ||
		change "grant ${role#roles/} on $resource to ${member#*:}" \
			"$@" add-iam-policy-binding "$resource" --member="$member" --role="$role" "${policy_flags[@]}"
}

revoke() {
	local member=$1 role=$2 resource=$3
	shift 3
	! has_role "$member" "$role" "$resource" "$@" ||
		change "take ${role#roles/} on $resource from ${member#*:}" \
			"$@" remove-iam-policy-binding "$resource" --member="$member" --role="$role" "${policy_flags[@]}"
}

has_role() {
	local member=$1 role=$2 resource=$3 where=()
	shift 3
	policy_flags=(--condition=None)
	case $* in
	pubsub*) policy_flags=() ;;
	run*) where=(--region="$region") ;;
	esac
	policy_flags+=("${where[@]}")
	look "$@" get-iam-policy "$resource" "${where[@]}" --flatten='bindings[].members' \
		--format='value[separator="|"](bindings.role,bindings.members,bindings.condition.title)' &&
		listed "$role|$member|"
}

note() { [[ $phase == apply ]] || printf '# Note: %s\n' "$*"; }

say() { printf '%s\n' "$*"; }

die() {
	printf 'deploy.sh: %s\n' "$*" >&2
	exit 1
}

# --- the steps ---

enable_apis() {
	local api disabled_apis=()
	look services list --enabled --format='value(config.name)' || true
	for api in "${apis[@]}"; do
		listed "$api.googleapis.com" || disabled_apis+=("$api.googleapis.com")
	done
	((${#disabled_apis[@]} == 0)) || change "enable the APIs ${disabled_apis[*]%%.*}" services enable "${disabled_apis[@]}"
}

buckets() {
	local retention=()
	[[ ! $retention_days ]] || retention=(--retention-period="${retention_days}d")
	if ! look_at_bucket "$bucket"; then
		create_bucket "$bucket" "${retention[@]}"
	elif [[ $retention_days && $bucket_retention != $((retention_days * 86400)) ]]; then
		note "gs://$bucket is there, and is kept as it is. For the retention policy: gcloud storage buckets update gs://$bucket --retention-period=${retention_days}d"
	elif [[ $bucket_retention && ! $state_bucket ]]; then
		die "gs://$bucket has a retention policy, so the state cannot be replaced there: give --retention-days $((bucket_retention / 86400)) or --state-bucket"
	fi
	if [[ $versioning && $bucket_versions != True ]]; then
		change "keep older versions in gs://$bucket" storage buckets update "gs://$bucket" --versioning
	fi

	[[ $state_bucket ]] || return 0
	if ! look_at_bucket "$state_bucket"; then
		create_bucket "$state_bucket"
		# A way back from a damaged state, that does not grow.
		change "keep older versions in gs://$state_bucket, for a week" \
			storage buckets update "gs://$state_bucket" --versioning --lifecycle-file=deploy/gcloud/state-lifecycle.json
	elif [[ $bucket_retention ]]; then
		die "gs://$state_bucket has a retention policy, so the state cannot be replaced there: give another --state-bucket"
	fi
}

# look_at_bucket BUCKET: is it there, and what is it like? One without uniform
# access cannot have managed folders, and is refused.
look_at_bucket() {
	local uniform public
	bucket_retention='' bucket_versions=''
	look storage buckets describe "gs://$1" \
		--format='value[separator="|"](uniform_bucket_level_access,public_access_prevention,retention_policy.retentionPeriod,versioning_enabled)' || return 1
	IFS='|' read -r uniform public bucket_retention bucket_versions <<<"$found"
	[[ $uniform == True ]] || die "gs://$1 lacks uniform bucket-level access, which managed folders need; object ACLs end with it: gcloud storage buckets update gs://$1 --uniform-bucket-level-access"
	[[ $public == enforced ]] || note "gs://$1 could be made public. To rule that out: gcloud storage buckets update gs://$1 --public-access-prevention"
}

# create_bucket BUCKET [FLAG...]
create_bucket() {
	change "create the bucket gs://$1 in $location" \
		storage buckets create "gs://$1" --location="$location" --uniform-bucket-level-access --public-access-prevention "${@:2}"
}

accounts() {
	account "$run_account" 'OpenAI audit log collector'
	account "$push_account" 'Triggers the OpenAI audit log collector'
	account "$build_account" 'Builds the OpenAI audit log collector'
	# What Google documents for builds with an account of their own; the default
	# account may be far more powerful, or be missing.
	local role
	for role in "${build_roles[@]}"; do
		grant "serviceAccount:$build_account" "$role" "$project" projects
	done
}

readonly build_roles=(roles/logging.logWriter roles/artifactregistry.writer roles/storage.objectViewer)

account() {
	look iam service-accounts describe "$1" --format='value(email)' ||
		change "create the service account ${1%%@*}" iam service-accounts create "${1%%@*}" --display-name="$2"
}

# Managed folders bound what the collector can do within a bucket, and let it
# list what lies in its own. Under the feed prefix it can neither replace nor delete.
folders() {
	local logs=gs://$bucket/$prefix/ state=gs://${state_bucket:-$bucket}/state/$prefix/ member=serviceAccount:$run_account
	folder "$logs"
	grant "$member" roles/storage.objectCreator "$logs" storage managed-folders
	if [[ $state_bucket ]]; then
		# Publishing is then a copy; whether one whose answer was lost is there can only be read.
		grant "$member" roles/storage.objectViewer "$logs" storage managed-folders
	fi
	folder "$state"
	grant "$member" roles/storage.objectUser "$state" storage managed-folders

	[[ $feed_reader ]] || return 0
	grant "serviceAccount:$feed_reader" roles/storage.objectViewer "gs://$bucket" storage buckets
	local listing=roles/storage.legacyBucketReader
	[[ ! $feed_deletes ]] || listing=roles/storage.legacyBucketWriter
	grant "serviceAccount:$feed_reader" "$listing" "gs://$bucket" storage buckets
}

folder() {
	look storage managed-folders describe "$1" --format='value(name)' ||
		change "create the managed folder $1" storage managed-folders create "$1"
}

secret() {
	local id=$name-admin-key
	look secrets describe "$id" --format='value(name)' ||
		change "create the secret $id" secrets create "$id" --replication-policy=automatic
	if [[ $rotate_key ]] || ! look secrets versions describe latest --secret="$id" --format='value(state)' || [[ $found != ENABLED ]]; then
		key_wanted=yes
		store_key "$id"
	fi
	grant "serviceAccount:$run_account" roles/secretmanager.secretAccessor "$id" secrets
}

key_wanted=

# read_key takes the key from the terminal, or all of standard input, into a
# variable that is not exported. No trace shows it.
read_key() {
	local -
	set +x
	if [[ -t 0 ]]; then
		say 'An OpenAI Admin key is needed; the scope api.audit_logs.read is enough, and all it should have'
		say '(platform.openai.com, Settings > Organization > Admin keys).'
		IFS= read -rsp 'Admin key: ' admin_key
		printf '\n'
	else
		admin_key=$(cat)
	fi
	admin_key=${admin_key%$'\r'}
	[[ $admin_key ]] || die 'no Admin key was given; nothing was changed'
	local LC_ALL=C
	[[ $admin_key != *[![:graph:]]* ]] || die 'the Admin key holds white space, or characters that no key has; nothing was changed'
}

# store_key SECRET: gcloud gets the key on its standard input.
store_key() {
	local -
	set +x
	local command=(secrets versions add "$1" --data-file=-)
	announce "store the Admin key in $1" || return 0
	if [[ $phase == plan ]]; then
		say '# (the key on standard input)'
		shown "${command[@]}"
	else
		attempt send_key "${command[@]}"
	fi
}

send_key() {
	printf '%s' "$admin_key" | gcloud "$@" --project="$project" --quiet
}

topics() {
	topic "$topic"
	topic "$name-dead-letter"
	# What failed five times. Nothing is lost by it, since the next run reads the
	# same records; it is kept to be looked at.
	subscription "$name-dead-letter" "$name-dead-letter" "|||10|604800s|||||" \
		--ack-deadline=10 --message-retention-duration=604800s --expiration-period=never
}

topic() {
	look pubsub topics describe "$1" --format='value(name)' ||
		change "create the topic $1" pubsub topics create "$1"
}

# subscription NAME TOPIC STATE FLAG...: STATE is what describe shows of one that
# these flags have made.
subscription() {
	local id=$1 of=projects/$project/topics/$2 state=$3 now
	shift 3
	if ! look pubsub subscriptions describe "$id" \
		--format='value[separator="|"](topic,pushConfig.pushEndpoint,pushConfig.oidcToken.serviceAccountEmail,pushConfig.oidcToken.audience,ackDeadlineSeconds,messageRetentionDuration,retryPolicy.minimumBackoff,retryPolicy.maximumBackoff,deadLetterPolicy.deadLetterTopic,deadLetterPolicy.maxDeliveryAttempts,expirationPolicy.ttl)'; then
		change "create the subscription $id" pubsub subscriptions create "$id" --topic="${of##*/}" "$@"
		return
	fi
	now=${found#*|}
	[[ ${found%%|*} == "$of" ]] || die "the subscription $id is of ${found%%|*}, which cannot be changed: gcloud pubsub subscriptions delete $id --project=$project"
	[[ $now == "$state" ]] || change "update the subscription $id" pubsub subscriptions update "$id" "$@"
}

collector() {
	refuse_other_trigger
	local env=("GCS_BUCKET=$bucket" "GCS_PREFIX=$prefix" "STATE_KEY=state/$prefix/state.json"
		"OVERLAP_SECONDS=$overlap_seconds" "RUN_TIMEOUT_SECONDS=$run_timeout")
	[[ ! $state_bucket ]] || env+=("STATE_BUCKET=$state_bucket")
	[[ ! $max_records ]] || env+=("MAX_RECORDS=$max_records")
	[[ ! $lookback_hours ]] || env+=("LOOKBACK_HOURS=$lookback_hours")
	[[ ! $base_url ]] || env+=("OPENAI_BASE_URL=$base_url")
	env+=("${settings[@]}")
	# The collector collects garbage rather than pass three quarters of the memory.
	local mib=${memory%[MG]i}
	[[ $memory == *Mi ]] || mib=$((mib * 1024))
	env+=("GOMEMLIMIT=$((mib * 3 / 4))MiB")
	local function=(
		functions deploy "$name" --gen2 --region="$region"
		--runtime=go126 --source=. --entry-point=main
		--trigger-http --no-allow-unauthenticated
		--ingress-settings=internal-only # Pub/Sub of this project counts as internal
		--run-service-account="$run_account"
		--build-service-account="projects/$project/serviceAccounts/$build_account"
		--memory="$memory" --cpu=1 --concurrency=1 # a run an instance
		--min-instances=0 --max-instances="$max_instances" --timeout="${request_timeout}s"
		--set-env-vars="^|^$(
			IFS='|'
			say "${env[*]}"
		)"
		--set-secrets="OPENAI_ADMIN_KEY=$name-admin-key:latest"
		# Without gRPC it is a third smaller, and starts faster; the latter without C, too.
		--set-build-env-vars='GOFLAGS=-tags=disable_grpc_modules,GOOGLE_GOLDFLAGS=-s -w,CGO_ENABLED=0'
	)
	change "deploy the function $name (some minutes)" "${function[@]}"
	learn_service_uri
}

look_at_function() {
	function_look=(functions describe "$name" --gen2 --region="$region"
		--format='value[separator="|"](environment,eventTrigger.eventType,serviceConfig.uri)')
	look "${function_look[@]}" || return 1
	IFS='|' read -r environment event_type service_uri <<<"$found"
}

refuse_other_trigger() {
	local environment event_type service_uri
	look_at_function || return 0
	[[ $environment != GEN_2 || $event_type ]] || return 0
	die "the function $name is there, and is not one of this script's: it is triggered by events, and a function's kind of trigger cannot be changed.
Give another --name, or delete it: gcloud functions delete $name --region=$region --project=$project
What it has collected stays in its bucket. To go on where it ended, stop its schedule, and copy its state before the first run here:
  gcloud storage cp gs://BUCKET/openai-auditlog/state.json gs://${state_bucket:-${bucket:-BUCKET}}/state/$prefix/state.json"
}

learn_service_uri() {
	local environment event_type
	# What was seen of it before it was deployed no longer holds.
	[[ $phase == plan ]] || ask_cloud "${function_look[@]}" || true
	if ! look_at_function; then
		[[ $phase == plan ]] || die "the function $name was deployed, and is not there"
		service_uri=@SERVICE_URI@
		[[ ! $dry_run ]] || say "SERVICE_URI=\$($(shown functions describe "$name" --gen2 --region="$region" --format='value(serviceConfig.uri)'))"
	fi
}

# The function is called by a push subscription of our own, and not by Eventarc:
# Eventarc makes and owns its subscription, whose retry delays, retention and dead
# letters could only be changed behind its back.
trigger() {
	local push=$push_account dead_letter=$name-dead-letter
	local agent=serviceAccount:service-$project_number@gcp-sa-pubsub.iam.gserviceaccount.com
	grant "serviceAccount:$push" roles/run.invoker "$name" run services
	has_role "$agent" roles/iam.serviceAccountTokenCreator "$push" iam service-accounts ||
		change "see that Pub/Sub has its service agent" beta services identity create --service=pubsub.googleapis.com
	grant "$agent" roles/iam.serviceAccountTokenCreator "$push" iam service-accounts
	grant "$agent" roles/pubsub.publisher "$dead_letter" pubsub topics

	# At this path the functions framework knows a push of Pub/Sub for what it is.
	local endpoint=$service_uri/projects/$project/topics/$topic
	subscription "$name" "$topic" \
		"$endpoint|$push|$service_uri|$ack_deadline|${retry_window}s|60s|600s|projects/$project/topics/$dead_letter|5|" \
		--push-endpoint="$endpoint" --push-auth-service-account="$push" --push-auth-token-audience="$service_uri" \
		--ack-deadline="$ack_deadline" --message-retention-duration="${retry_window}s" \
		--min-retry-delay=60s --max-retry-delay=600s \
		--dead-letter-topic="$dead_letter" --max-delivery-attempts=5 --expiration-period=never
	grant "$agent" roles/pubsub.subscriber "$name" pubsub subscriptions

	local job=("$name" --location="$region" --schedule="$schedule" --time-zone=Etc/UTC
		--topic="projects/$project/topics/$topic" --message-body='{}')
	if ! look scheduler jobs describe "$name" --location="$region" \
		--format='value[separator="|"](schedule,timeZone,pubsubTarget.topicName,pubsubTarget.data)'; then
		change "create the schedule $name: $schedule" scheduler jobs create pubsub "${job[@]}"
	elif [[ $found != "$schedule|Etc/UTC|projects/$project/topics/$topic|e30=" ]]; then
		change "update the schedule $name: $schedule" scheduler jobs update pubsub "${job[@]}"
	fi
}

# --- monitoring ---

# The files are in the form of Google's APIs, with placeholders.
monitoring() {
	local file
	find_tracks
	if [[ ! -d deploy/monitoring ]]; then
		note 'deploy/monitoring is missing: no metrics, alerts and dashboard'
		return
	fi
	for file in deploy/monitoring/metrics/*.json; do
		[[ ! -f $file ]] || metric "$file"
	done
	notification_channel
	for file in deploy/monitoring/alerts/*.json; do
		[[ ! -f $file ]] || alert "$file"
	done
	[[ ! -f deploy/monitoring/dashboard.json ]] || dashboard deploy/monitoring/dashboard.json
}

# find_tracks: newer CLIs have these groups without alpha and beta.
find_tracks() {
	[[ ! ${policies+set} ]] || return 0
	policies=(monitoring policies) channels=(monitoring channels)
	gcloud "${policies[@]}" --help </dev/null >/dev/null 2>&1 || policies=(alpha "${policies[@]}")
	gcloud "${channels[@]}" --help </dev/null >/dev/null 2>&1 || channels=(beta "${channels[@]}")
}

# fill FILE FIELD: fills the placeholders in; $filled is then the result's path,
# and $title its FIELD at the top level.
fill() {
	local text
	text=$(<"$1")
	text=${text//"\${name}"/"$name"}
	text=${text//"\${metric}"/"${name//-/_}"}
	text=${text//"\${project}"/"$project"}
	text=${text//"\${hours}"/"$alert_hours"}
	text=${text//"\${lag_seconds}"/"$alert_lag_seconds"}
	text=${text//"\${readme_url}"/"$readme_url"}
	[[ $text != *"\${"* ]] || die "$1 has a placeholder that nobody fills in"
	filled_files=yes
	filled=$tmp/${1#deploy/monitoring/}
	mkdir -p "${filled%/*}"
	printf '%s\n' "$text" >"$filled"
	title=$(sed -n "s/^  \"$2\": \"\([^\"\\]*\)\",\{0,1\}\$/\1/p" "$filled")
	[[ $title && $title != *$'\n'* ]] || die "$1 has no $2 on a line of its own, two spaces in"
}

metric() {
	fill "$1" name
	if look logging metrics describe "$title" --format='value(name)'; then
		change "update the metric $title" logging metrics update "$title" --config-from-file="$filled"
	else
		change "create the metric $title" logging metrics create "$title" --config-from-file="$filled"
	fi
}

# notification_channel: $channel is then the channel of --notify, if any.
notification_channel() {
	channel=
	[[ $notify ]] || return 0
	look "${channels[@]}" list --format='value[separator="|"](type,labels.email_address,name)' || true
	channel=$(sed -n "s/^email|${notify//./\\.}|//p" <<<"$found" | head -n 1)
	[[ $channel ]] || change_into channel "create a notification channel for $notify" \
		"${channels[@]}" create --type=email --display-name="$name: $notify" --channel-labels="email_address=$notify" \
		--user-labels="auditlog=$name" --format='value(name)'
}

# alert FILE: a label holds the file's checksum, so that a policy is touched only
# where it differs: an update closes its incidents. Channels added by hand are kept.
alert() {
	local is wanted flags=()
	fill "$1" displayName
	is=$(cksum <"$filled")
	is=${is%% *}
	find_policy "$title"
	wanted=$policy_channels
	[[ ! $channel || ,$wanted, == *,"$channel",* ]] || wanted=${wanted:+$wanted,}$channel
	if [[ ! $policy ]]; then
		[[ ! $wanted ]] || flags=(--notification-channels="$wanted")
		change "create the alert \"$title\"" "${policies[@]}" create \
			--policy-from-file="$filled" --user-labels="auditlog_file=$is" "${flags[@]}"
	elif [[ $policy_sum != "$is" || $policy_channels != "$wanted" ]]; then
		[[ ! $wanted ]] || flags=(--set-notification-channels="$wanted")
		change "update the alert \"$title\"" "${policies[@]}" update "$policy" \
			--policy-from-file="$filled" --update-user-labels="auditlog_file=$is" "${flags[@]}"
	fi
}

# find_policy TITLE: sets what is known of the policy of that name, if there is one.
find_policy() {
	local id sum to display
	policy='' policy_sum='' policy_channels=''
	look_at_policies
	while IFS='|' read -r id sum to display; do
		[[ $display != "$1" ]] || policy=$id policy_sum=$sum policy_channels=$to
	done <<<"$found"
}

look_at_policies() {
	look "${policies[@]}" list \
		--format='value[separator="|"](name,userLabels.auditlog_file,notificationChannels.list(),displayName)' || true
}

# dashboard FILE: one that is there is left alone, since people move charts.
dashboard() {
	fill "$1" displayName
	find_dashboard "$title"
	[[ $board ]] || change "create the dashboard \"$title\"" monitoring dashboards create --config-from-file="$filled"
}

find_dashboard() {
	local id display
	board=
	look monitoring dashboards list --format='value[separator="|"](name,displayName)' || true
	while IFS='|' read -r id display; do
		[[ $display != "$1" ]] || board=$id
	done <<<"$found"
}

# --- taking it down ---

destroy() {
	refuse_other_trigger
	destroy_monitoring
	remove "the schedule $name" "$name" scheduler jobs
	remove "the subscription $name" "$name" pubsub subscriptions
	remove "the function $name" "$name" functions
	remove "the subscription $name-dead-letter" "$name-dead-letter" pubsub subscriptions
	remove "the topic $name-dead-letter" "$name-dead-letter" pubsub topics
	remove "the topic $topic" "$topic" pubsub topics
	remove "the secret $name-admin-key, and the key with it" "$name-admin-key" secrets
	destroy_accounts
}

after_destroy() {
	cat <<END

Done. Kept, with all that was collected: the buckets, whatever the feed's account
may do there, and the APIs. To delete a bucket:
  gcloud storage rm --recursive gs://${bucket:-BUCKET}
The images of the function's builds stay in Artifact Registry (gcf-artifacts).
END
}

# remove WHAT ID GROUP...: deletes it, if it is there.
remove() {
	local what=$1 id=$2 where=()
	shift 2
	case $* in
	functions) where=(--gen2 --region="$region") ;;
	scheduler*) where=(--location="$region") ;;
	esac
	! look "$@" describe "$id" "${where[@]}" --format='value(name)' ||
		change "delete $what" "$@" delete "$id" "${where[@]}"
}

destroy_monitoring() {
	local file removed='|' id owner
	find_tracks
	if [[ ! -d deploy/monitoring ]]; then
		note 'deploy/monitoring is missing: metrics, alerts and the dashboard are not looked for'
		return
	fi
	if [[ -f deploy/monitoring/dashboard.json ]]; then
		fill deploy/monitoring/dashboard.json displayName
		find_dashboard "$title"
		[[ ! $board ]] || change "delete the dashboard \"$title\"" monitoring dashboards delete "$board"
	fi
	for file in deploy/monitoring/alerts/*.json; do
		[[ -f $file ]] || continue
		fill "$file" displayName
		find_policy "$title"
		[[ $policy ]] || continue
		removed+="$policy|"
		change "delete the alert \"$title\"" "${policies[@]}" delete "$policy"
	done
	look "${channels[@]}" list --format='value[separator="|"](userLabels.auditlog,name)' || true
	while IFS='|' read -r owner id; do
		[[ $owner == "$name" ]] || continue
		if used_by_others "$id" "$removed"; then
			note "the notification channel $id is used by other alerts too, and is kept"
		else
			change "delete the notification channel $id" "${channels[@]}" delete "$id"
		fi
	done <<<"$found"
	for file in deploy/monitoring/metrics/*.json; do
		[[ -f $file ]] || continue
		fill "$file" name
		remove "the metric $title" "$title" logging metrics
	done
}

# used_by_others CHANNEL POLICIES: does any other policy notify it?
used_by_others() {
	local id sum to display
	look_at_policies
	while IFS='|' read -r id sum to display; do
		[[ ,$to, != *,"$1",* || $2 == *"|$id|"* ]] || return 0
	done <<<"$found"
	return 1
}

# Roles that a deleted account leaves behind would stay, as those of nobody.
destroy_accounts() {
	local role account
	if [[ $bucket ]]; then
		revoke "serviceAccount:$run_account" roles/storage.objectCreator "gs://$bucket/$prefix/" storage managed-folders
		revoke "serviceAccount:$run_account" roles/storage.objectViewer "gs://$bucket/$prefix/" storage managed-folders
		revoke "serviceAccount:$run_account" roles/storage.objectUser "gs://${state_bucket:-$bucket}/state/$prefix/" storage managed-folders
	else
		note 'without --bucket, the roles of the deleted account on its folders are left there; nobody has them'
	fi
	for role in "${build_roles[@]}"; do
		revoke "serviceAccount:$build_account" "$role" "$project" projects
	done
	for account in "$build_account" "$push_account" "$run_account"; do
		remove "the service account ${account%%@*}" "$account" iam service-accounts
	done
}

main "$@"
